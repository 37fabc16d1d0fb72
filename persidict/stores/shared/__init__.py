"""What several stores use."""
