"""Reading and writing files that may be broken or hostile; independent of activations."""
