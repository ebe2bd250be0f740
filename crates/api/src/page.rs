//! Query strings, and listings cut into pages.

use axum::Json;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde_json::{Value, json};

use crate::refusal::Refusal;

/// Rows per page when the caller does not say.
const LIMIT_DEFAULT: usize = 100;
/// Most rows per page.
const LIMIT_MAX: usize = 10_000;

/// The pairs of a query string; a key may come several times.
pub(crate) struct Pairs(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Pairs {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(error) => Err(Refusal::bad_request(error.body_text())),
        }
    }
}

impl Pairs {
    /// The first value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a key.
    pub(crate) fn all(&self, key: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(k, _)| k == key)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// A key that is `true` or `false`.
    pub(crate) fn truth(&self, key: &str) -> Result<Option<bool>, Refusal> {
        match self.get(key) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(Refusal::bad_request(format!("{key} must be true or false"))),
        }
    }

    /// The page asked for.
    pub(crate) fn page(&self) -> Result<Page, Refusal> {
        let number = |key: &str, default: usize, max: usize| match self.get(key) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| (1..=max).contains(n))
                .ok_or_else(|| {
                    let status = axum::http::StatusCode::BAD_REQUEST;
                    Refusal::new(status, "INVALID_PARAMETER", "page_limit_invalid")
                }),
        };
        Ok(Page {
            page: number("page", 1, usize::MAX)?,
            limit: number("limit", LIMIT_DEFAULT, LIMIT_MAX)?,
        })
    }
}

/// Which rows of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    page: usize,
    limit: usize,
}

impl Page {
    /// Which of `count` rows are on this page.
    pub(crate) fn range(self, count: usize) -> std::ops::Range<usize> {
        let from = (self.page - 1).saturating_mul(self.limit).min(count);
        from..from.saturating_add(self.limit).min(count)
    }

    /// The rows of this page, in the envelope of a listing.
    pub(crate) fn of<T>(self, rows: &[T], render: impl Fn(&T) -> Value) -> Json<Value> {
        let shown = self.range(rows.len());
        let to = shown.end;
        let data: Vec<Value> = rows[shown].iter().map(render).collect();
        Json(json!({
            "data": data,
            "meta": {
                "page": self.page,
                "limit": self.limit,
                "count": rows.len(),
                "hasnext": to < rows.len(),
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &[(&str, &str)]) -> Pairs {
        Pairs(
            query
                .iter()
                .map(|&(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        )
    }

    fn page(query: &[(&str, &str)]) -> Page {
        pairs(query).page().expect("a good page")
    }

    #[test]
    fn the_envelope() {
        let rows = [1, 2, 3];
        let Json(body) = page(&[("limit", "2")]).of(&rows, |n| json!(n));
        assert_eq!(body["data"], json!([1, 2]));
        assert_eq!(
            body["meta"],
            json!({ "page": 1, "limit": 2, "count": 3, "hasnext": true })
        );
        let Json(body) = page(&[("limit", "2"), ("page", "2")]).of(&rows, |n| json!(n));
        assert_eq!(body["data"], json!([3]));
        assert_eq!(body["meta"]["hasnext"], json!(false));
        let Json(body) = page(&[("page", "99")]).of(&rows, |n| json!(n));
        assert_eq!(body["data"], json!([]));
    }

    #[test]
    fn bad_pages() {
        for query in [
            ("page", "0"),
            ("limit", "0"),
            ("limit", "10001"),
            ("page", "x"),
        ] {
            let refusal = pairs(&[query]).page().expect_err("not a page");
            assert_eq!(refusal.code, "INVALID_PARAMETER");
            assert_eq!(refusal.message, "page_limit_invalid");
        }
    }
}
