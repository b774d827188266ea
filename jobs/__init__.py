"""The jobs of segpipe: thin programs for spark-submit, one per verb."""
