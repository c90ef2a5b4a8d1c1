"""What will be asked, and where every outcome is kept."""
