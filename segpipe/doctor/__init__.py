"""What a machine or a cluster lacks, each with its remedy."""
