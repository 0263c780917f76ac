"""The few words that everything in diptych speaks: Batch, Model, Config, errors and the runtime."""
