"""`sspo data`: parquet files in verl's layout from the published sets, from their hub or from files on disk."""
