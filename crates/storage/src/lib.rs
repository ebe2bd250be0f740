//! dunlin-storage
