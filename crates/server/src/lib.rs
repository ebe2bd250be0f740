//! dunlin-server
