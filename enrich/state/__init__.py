"""Our tables in the schema `enrichment`: what is known, who works on what, what is to be published."""
