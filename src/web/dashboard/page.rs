//! Page: the files of the page, and who gets them instead of JSON. Knows headers and no numbers.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::ResponseError;
use actix_web::http::header;

use crate::web::dashboard::query::Params;
use crate::web::refusal::Refusal;

/// Whether a request wants the page: `format`, else what it accepts. A browser names HTML; `curl` takes anything, and gets JSON.
pub(crate) fn is_wanted(request: &HttpRequest) -> Result<bool, Refusal> {
    // Other parameters are for whoever reads them.
    let query = request.query_string();
    let format = query.split('&').filter(|part| part.starts_with("format=")).collect::<Vec<_>>().join("&");
    Ok(match Params::parse(&format, &[])?.choice("format", &["json", "html"])? {
        Some(index) => index == 1,
        None => accepts_html(request),
    })
}

fn accepts_html(request: &HttpRequest) -> bool {
    let accept = request.headers().get_all(header::ACCEPT).filter_map(|accept| accept.to_str().ok());
    let ranges = accept.flat_map(|accept| accept.split(',')).map(|range| range.split(';').next().unwrap_or_default().trim());
    let (mut html, mut json) = (false, false);
    for range in ranges {
        html |= range.eq_ignore_ascii_case("text/html");
        json |= range.eq_ignore_ascii_case("application/json");
    }
    html && !json
}

/// The page. Its own addresses are relative to its folder, so that it works behind a proxy that takes a part of the path off.
pub(crate) fn index(request: &HttpRequest, root: bool) -> HttpResponse {
    let path = request.path();
    if root && !path.ends_with('/') {
        let name = path.rsplit('/').next().unwrap_or_default();
        let query = if request.query_string().is_empty() { String::new() } else { format!("?{}", request.query_string()) };
        return HttpResponse::TemporaryRedirect().insert_header((header::LOCATION, format!("./{name}/{query}"))).finish();
    }
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(INDEX)
}

pub(crate) async fn style() -> HttpResponse {
    HttpResponse::Ok().content_type("text/css; charset=utf-8").body(STYLE)
}

pub(crate) async fn script() -> HttpResponse {
    HttpResponse::Ok().content_type("text/javascript; charset=utf-8").body(SCRIPT)
}

/// Says no: in words to people, in JSON to programs.
pub(crate) fn refuse(request: &HttpRequest, refusal: &Refusal) -> HttpResponse {
    if accepts_html(request) {
        HttpResponse::build(refusal.status).content_type("text/plain; charset=utf-8").body(format!("{refusal}\n"))
    } else {
        refusal.error_response()
    }
}

const INDEX: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/dashboard.css");
const SCRIPT: &str = include_str!("page/dashboard.js");
