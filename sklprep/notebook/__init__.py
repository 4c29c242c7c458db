"""What notebooks show: cards, curves and text."""
