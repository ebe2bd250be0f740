//! `api_key`: keys for the REST API.

use crate::schema::{Field, Kind, field};
use crate::settings::ApiKey;
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[field(
    "bootstrap_file",
    Kind::Path,
    "\"\"",
    "File with API keys that are made at every start: one `key:secret` or \
         `key:secret:role` per line.",
)];

pub(crate) fn build(v: View<'_>) -> ApiKey {
    ApiKey {
        bootstrap_file: v.text("bootstrap_file"),
    }
}
