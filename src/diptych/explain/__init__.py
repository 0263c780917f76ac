"""Why a picture met a text: where in the picture, and by which words."""
