"""Jobs on Spark: archives to tables, tables to tables."""
