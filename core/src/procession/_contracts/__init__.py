"""What users call and what plugins implement."""
