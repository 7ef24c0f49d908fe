"""The model: a bundle, the engine that runs it, and what it says of a listing."""
