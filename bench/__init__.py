"""Speed of Rowcast, each figure beside its twin: the same work done by hand. `make bench`."""
