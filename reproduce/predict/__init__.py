"""From a picture to joints by the original testing protocol."""
