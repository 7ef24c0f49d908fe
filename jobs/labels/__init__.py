"""`enrich labels`: what people said of photos and listings, out for training and in from labelling tools."""
