//! Typed access to checked values, for the builders of `section/`.

use std::collections::BTreeMap;

use crate::check::{Checked, Typed};
use crate::settings::{Bind, Rate};

/// A checked object.
///
/// A missing or differently typed value is a fault of the registry, not of the
/// operator; the tests build settings from every field, so it cannot stay unseen.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    object: &'a BTreeMap<String, Checked>,
    /// Where unset values are inherited from.
    under: Option<&'a BTreeMap<String, Checked>>,
}

impl<'a> View<'a> {
    pub(crate) fn of(checked: &'a Checked) -> Self {
        let object = checked.fields().expect("a view is made of an object only");
        Self {
            object,
            under: None,
        }
    }

    /// The object `key`.
    pub(crate) fn view(self, key: &str) -> Self {
        Self::of(self.get(key))
    }

    /// This object with what it does not set taken from `under`.
    pub(crate) const fn over(self, under: Self) -> Self {
        Self {
            object: self.object,
            under: Some(under.object),
        }
    }

    pub(crate) fn get(self, key: &str) -> &'a Checked {
        let own = self.object.get(key).filter(|c| c.typed != Typed::Unset);
        own.or_else(|| self.under?.get(key))
            .or_else(|| self.object.get(key))
            .unwrap_or_else(|| panic!("the registry declares no field `{key}` here"))
    }

    fn wrong(key: &str) -> ! {
        panic!("the registry declares `{key}` with another kind")
    }

    pub(crate) fn bool(self, key: &str) -> bool {
        match self.get(key).typed {
            Typed::Bool(b) => b,
            _ => Self::wrong(key),
        }
    }

    pub(crate) fn opt_bool(self, key: &str) -> Option<bool> {
        match self.get(key).typed {
            Typed::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// A number within the range its field allows, which fits the asked type.
    pub(crate) fn int<T: TryFrom<i64>>(self, key: &str) -> T {
        self.opt_int(key).unwrap_or_else(|| Self::wrong(key))
    }

    /// A number; `None` for a word such as `infinity`, or nothing.
    pub(crate) fn opt_int<T: TryFrom<i64>>(self, key: &str) -> Option<T> {
        match self.get(key).typed {
            Typed::Int(n) => T::try_from(n).ok(),
            _ => None,
        }
    }

    pub(crate) fn float(self, key: &str) -> f64 {
        match self.get(key).typed {
            Typed::Float(f) => f,
            Typed::Int(n) => n as f64,
            _ => Self::wrong(key),
        }
    }

    pub(crate) fn text(self, key: &str) -> String {
        self.opt_text(key).unwrap_or_default()
    }

    pub(crate) fn opt_text(self, key: &str) -> Option<String> {
        match &self.get(key).typed {
            Typed::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    pub(crate) fn ms(self, key: &str) -> u64 {
        self.opt_ms(key).unwrap_or_else(|| Self::wrong(key))
    }

    /// Milliseconds; `None` for a word such as `infinity`, or nothing.
    pub(crate) fn opt_ms(self, key: &str) -> Option<u64> {
        match self.get(key).typed {
            Typed::Ms(ms) => Some(ms),
            _ => None,
        }
    }

    pub(crate) fn bytes(self, key: &str) -> u64 {
        self.opt_bytes(key).unwrap_or_else(|| Self::wrong(key))
    }

    pub(crate) fn opt_bytes(self, key: &str) -> Option<u64> {
        match self.get(key).typed {
            Typed::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn opt_rate(self, key: &str) -> Option<Rate> {
        match self.get(key).typed {
            Typed::Rate(rate) => Some(rate),
            _ => None,
        }
    }

    pub(crate) fn bind(self, key: &str) -> Bind {
        match self.get(key).typed {
            Typed::Bind(bind) => bind,
            _ => Self::wrong(key),
        }
    }

    /// The variant of a word; `parse` is that of the enum whose words the field lists.
    pub(crate) fn word<T>(self, key: &str, parse: fn(&str) -> Option<T>) -> T {
        self.opt_word(key, parse)
            .unwrap_or_else(|| Self::wrong(key))
    }

    pub(crate) fn opt_word<T>(self, key: &str, parse: fn(&str) -> Option<T>) -> Option<T> {
        match self.get(key).typed {
            Typed::Word(word) => parse(word),
            _ => None,
        }
    }

    pub(crate) fn list(self, key: &str) -> &'a [Checked] {
        match &self.get(key).typed {
            Typed::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn texts(self, key: &str) -> Vec<String> {
        self.list(key)
            .iter()
            .filter_map(|item| match &item.typed {
                Typed::Text(text) => Some(text.clone()),
                Typed::Word(word) => Some((*word).to_owned()),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn entries(self, key: &str) -> impl Iterator<Item = (&'a String, &'a Checked)> {
        self.get(key).fields().into_iter().flatten()
    }

    /// The undeclared elements of a list, as JSON.
    pub(crate) fn raws(self, key: &str) -> Vec<serde_json::Value> {
        self.list(key)
            .iter()
            .filter_map(|item| match &item.typed {
                Typed::Raw(value) => Some(value.to_json()),
                _ => None,
            })
            .collect()
    }
}
