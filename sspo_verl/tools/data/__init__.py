"""`sspo data`: parquet files in verl's layout, from published data sets on the hub or from files on disk."""
