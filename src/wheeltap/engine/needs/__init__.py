"""What disturbances must know of a clean model before they begin."""
