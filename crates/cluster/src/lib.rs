//! dunlin-cluster
