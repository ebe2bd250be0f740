//! dunlin-config
