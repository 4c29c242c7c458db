"""Whether intervals cover and tests reject as often as they say, on data whose truth is known."""
