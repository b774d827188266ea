"""DataFrame to DataFrame: ingest, segment and evaluate on Spark. Never imports a deep-learning framework."""
