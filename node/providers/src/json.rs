//! Reading JSON that may be anything.

use serde_json::Value;

/// The value at a path of keys.
pub(crate) fn at<'a>(json: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(json, |value, key| value.get(key))
}

/// The text at a path of keys, if there is one.
pub(crate) fn text_at<'a>(json: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(json, path)?.as_str()
}

/// The number at a path of keys.
pub(crate) fn number_at(json: &Value, path: &[&str]) -> Option<u64> {
    at(json, path)?.as_u64()
}

/// The elements of the array at a path of keys; none where there is no array.
pub(crate) fn each_at<'a>(json: &'a Value, path: &[&str]) -> &'a [Value] {
    at(json, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
