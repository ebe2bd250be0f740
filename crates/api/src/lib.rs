//! dunlin-api
