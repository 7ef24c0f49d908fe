"""The model: a bundle, the engine that runs it, and what it says of a listing."""

# The kinds of heads that there are: each is known from the import of its module.
import enrich.model.binary
import enrich.model.multiclass  # noqa: F401
