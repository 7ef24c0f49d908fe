"""The networks: pretrained, what they make of photos, heads, int8."""
