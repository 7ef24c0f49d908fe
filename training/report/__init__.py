"""`report`: a comparison as a page, with the study's figures beside it."""
