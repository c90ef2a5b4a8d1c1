"""Pictures from files and by name."""
