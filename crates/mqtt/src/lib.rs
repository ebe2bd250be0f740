//! dunlin-mqtt
