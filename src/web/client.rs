//! Client: serves `pubsub.js`, the browser's side of the WebSocket protocol. Knows a file.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header;

/// Answers with `pubsub.js`, an ES module without dependencies that speaks the protocol of [`WebSocket`](crate::web::WebSocket): it reconnects, subscribes again and goes on
/// after the last event it had. `.route("/pubsub.js", web::get().to(client))`, and in the page:
///
/// ```html
/// <script type="module">
///   import { PubSubClient } from "/pubsub.js";
///   const client = new PubSubClient("/ws");
///   client.subscribe("room:lobby", { lastId: "0-0", onEvent: (event) => console.log(event.data) });
/// </script>
/// ```
///
/// Browsers keep it and ask with each load whether it changed.
pub async fn client(request: HttpRequest) -> HttpResponse {
    let known = request.headers().get(header::IF_NONE_MATCH).is_some_and(|tag| tag == ETAG);
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response.insert_header((header::ETAG, ETAG)).insert_header((header::CACHE_CONTROL, "no-cache"));
    if known {
        return response.finish();
    }
    response
        .content_type("text/javascript; charset=utf-8")
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(SOURCE)
}

const SOURCE: &str = include_str!("pubsub.js");
/// Another one with each release.
const ETAG: &str = concat!("\"", env!("CARGO_PKG_VERSION"), "\"");

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn the_client_is_served_once_per_release() {
        actix_web::rt::System::new().block_on(async {
            let first = client(TestRequest::default().to_http_request()).await;
            assert_eq!(
                (first.status().as_u16(), first.headers().get(header::CONTENT_TYPE).unwrap().to_str().unwrap()),
                (200, "text/javascript; charset=utf-8")
            );
            let tag = first.headers().get(header::ETAG).unwrap().clone();
            let again = client(TestRequest::default().insert_header((header::IF_NONE_MATCH, tag)).to_http_request()).await;
            assert_eq!(again.status().as_u16(), 304);
        });
    }
}
