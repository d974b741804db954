"""Task-vector bases (2.12)–(2.15): clustering of task vectors, merging of clusters, arithmetic with what comes out."""
