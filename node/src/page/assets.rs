//! The page's files, compiled in, and the headers that keep them and the answers to themselves.

use super::answer::tag;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

/// Nothing from elsewhere, nothing inline, no frame around it, no form that is sent.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const GUARDS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

const INDEX: &str = include_str!("assets/index.html");

macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("assets/", $name)))),*] };
}

/// Every file but the first one, by name.
const FILES: &[(&str, &str)] = files![
    "icon.svg",
    "page.css",
    "views.css",
    "main.js",
    "api.js",
    "dom.js",
    "words.js",
    "cluster.js",
    "queue.js",
    "tasks.js",
    "task.js",
    "timeline.js",
    "context.js",
    "quotas.js",
];

pub(crate) async fn index(headers: HeaderMap) -> Response {
    sent(&headers, "index.html", INDEX)
}

pub(crate) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match FILES.iter().find(|(known, _)| *known == name) {
        Some((name, text)) => sent(&headers, name, text),
        None => (StatusCode::NOT_FOUND, "there is no such file\n").into_response(),
    }
}

/// Browsers ask each time whether theirs is still the file: after an upgrade no old half is shown.
fn sent(asked: &HeaderMap, name: &str, text: &'static str) -> Response {
    let tag = tag(text.as_bytes());
    if asked.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response();
    }
    let headers =
        [(CONTENT_TYPE, kind(name).to_string()), (CACHE_CONTROL, "no-cache".to_string()), (ETAG, tag)];
    (headers, text).into_response()
}

fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

/// Every answer of the page has the guards.
pub(crate) async fn guarded(mut response: Response) -> Response {
    for (name, value) in GUARDS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_is_named_is_there() {
        let named = |text: &str| -> Vec<String> {
            text.split(['"', '\'']).filter(|part| part.starts_with("/page/")).map(str::to_string).collect()
        };
        let names: Vec<String> = FILES.iter().flat_map(|(_, text)| named(text)).chain(named(INDEX)).collect();
        assert!(names.len() > 5);
        for name in names.iter().filter(|name| !name.starts_with("/page/api")) {
            let bare = name.trim_start_matches("/page/");
            assert!(FILES.iter().any(|(known, _)| *known == bare), "{name} is not served");
        }
    }

    #[test]
    fn text_never_becomes_markup_and_nothing_comes_from_elsewhere() {
        for (name, text) in FILES.iter().chain([&("index.html", INDEX)]) {
            for banned in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "localStorage.setItem('key",
            ] {
                assert!(!text.contains(banned), "{name} has {banned}");
            }
            let outside = text.replace("http://www.w3.org/2000/svg", "");
            assert!(
                !outside.contains("http://") && !outside.contains("https://"),
                "{name} names another site"
            );
            assert!(
                !text.contains(" style=") && !text.contains(" onclick="),
                "{name} has what the policy forbids"
            );
            assert!(text.lines().count() < 300, "{name} is too long");
        }
    }
}
