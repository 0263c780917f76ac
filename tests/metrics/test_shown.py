from diptych.metrics.shown import nested, show, tables

SCORES = {"image_to_text/r@1": 0.5, "image_to_text/mean_rank": 3.25, "text_to_image/r@1": 0.25} | {
    "text_to_image/mean_rank": 4.0,
    "mean_r@1": 0.375,
    "texts": 4000.0,
}


def test_shares_counts_and_numbers_are_written_each_in_its_way():
    assert show("a/r@1", 0.1234) == "12.3 %"
    assert show("accuracy", 1.0) == "100.0 %"
    assert show("texts", 4000.0) == "4,000"
    assert show("cider", 0.4567) == "0.457"
    assert show("loss", 0.0) == "0.000"


def test_rows_with_the_same_columns_share_a_table():
    ranks, rest = tables(SCORES)
    assert ranks.names == ("r@1", "mean rank")
    assert ranks.rows == (("image to text", ("50.0 %", "3.250")), ("text to image", ("25.0 %", "4")))
    assert rest.names == ("mean r@1", "texts")
    assert rest.rows == (("", ("37.5 %", "4,000")),)


def test_nested_keeps_every_score():
    assert nested(SCORES)["image_to_text"] == {"r@1": 0.5, "mean_rank": 3.25}
    assert nested({"a/b/c": 1.0}) == {"a": {"b": {"c": 1.0}}}
