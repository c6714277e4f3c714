//! Many clients at once, slow ones and strangers: what they may take of the server's memory and places.

use std::task::{Context, Poll};

use hyper::body::Frame;
use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle};

use super::*;

/// A body that has begun and does not end.
struct Unfinished {
    data: Option<Bytes>,
    waits: Option<oneshot::Sender<()>>,
}

impl HttpBody for Unfinished {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        match self.data.take() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => {
                drop(self.waits.take());
                Poll::Pending
            }
        }
    }
}

impl World {
    /// Begins a request whose body does not end; returns once all of it that there is has been read.
    async fn begin(&self, path: &str, headers: &[(&str, &str)], length: usize) -> JoinHandle<Response> {
        let (waits, read) = oneshot::channel();
        let mut request = Request::builder().method("POST").uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Body::new(Unfinished { data: Some(vec![b' '; length].into()), waits: Some(waits) });
        let router = self.router.clone();
        let answer = tokio::spawn(async move { router.oneshot(request.body(body).unwrap()).await.unwrap() });
        // It ends when the sender is dropped, also where nothing is read.
        drop(timeout(DEADLINE, read).await.unwrap());
        answer
    }
}

#[tokio::test]
async fn files_of_plans_have_room_for_two_whole_folders() {
    let world = World::new();
    let viewer = format!("Bearer {}", world.token(&json!({"role": "viewer"})).await);
    let auth = ("authorization", viewer.as_str());
    let (whole, json) = (plan::MAX_BODY.to_string(), ("content-type", "application/json"));
    let first = world.begin("/api/v1/plan", &[auth, json, ("content-length", &whole)], 1).await;
    // Whose length is not told is taken for the longest.
    let second = world.begin("/api/v1/plan", &[auth, json], 1).await;
    let ask = async || world.ask("POST", "/api/v1/plan", &[auth, json, ("content-length", "2")], "{}").await;
    let refused = ask().await;
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(ask().await.status(), 400, "there is room, and it is read");
    second.abort();
}

#[tokio::test]
async fn bodies_of_strangers_share_their_memory_and_the_oldest_gives_way() {
    let world = World::new();
    let signed = [("x-hub-signature-256", "sha256=00")];
    let each = MAX_BODY - 1;
    let most = usize::try_from(body::UNPROVEN).unwrap() / each;
    let mut begun = Vec::new();
    for _ in 0..most {
        begun.push(world.begin("/hooks/w/triggers/push", &signed, each).await);
    }
    assert!(!begun[0].is_finished());
    begun.push(world.begin("/hooks/source", &signed, each).await);
    let oldest = timeout(DEADLINE, begun.remove(0)).await.unwrap().unwrap();
    assert_eq!((oldest.status().as_u16(), oldest.headers().contains_key("retry-after")), (503, true));
    assert!(begun.iter().all(|begun| !begun.is_finished()));
    // What is sent whole is heard meanwhile.
    let answer = world.ask("POST", "/hooks/w/triggers/push", &signed, vec![b' '; each]).await;
    assert_eq!(answer.status(), 401);
    // Whoever is known needs none of it.
    let auth = ("authorization", "Bearer s3cret");
    let known = world.begin("/api/v1/runs", &[auth, ("content-type", "application/json")], each).await;
    assert!(!known.is_finished());
    assert_eq!(begun.iter().filter(|begun| begun.is_finished()).count(), 1);
}

#[tokio::test]
async fn a_wrong_token_is_refused_before_its_body_has_come() {
    let world = World::new();
    let paths = ["/hooks/w/pipelines/build", "/hooks/w/triggers/push", "/hooks/nobody/triggers/push", "/hooks/source"];
    for path in paths {
        for headers in [&[][..], &[("authorization", "Bearer wrong")], &[("x-gitlab-token", "wrong")]] {
            let answer = world.begin(path, headers, 1).await;
            let answer = timeout(Duration::from_secs(5), answer).await.expect("its body is waited for").unwrap();
            assert_eq!(answer.status(), 401, "{path} {headers:?}");
        }
    }
}

#[tokio::test]
async fn slow_strangers_keep_nobody_out() {
    let world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = serve::serve_some(listener, None, world.router.clone(), world.stop.subscribe(), 16);
    let server = tokio::spawn(server);
    let ask = async |client: &mut TcpStream, path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer s3cret\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 15];
        timeout(serve::HEAD_WITHIN / 2, client.read_exact(&mut answer)).await.expect("nobody answers").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK", "{path}");
    };
    let mut known = TcpStream::connect(address).await.unwrap();
    ask(&mut known, "/api/v1/workflows").await;
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HT").await.unwrap();
        slow.push(client);
    }
    for _ in 0..4 {
        let mut client = TcpStream::connect(address).await.unwrap();
        ask(&mut client, "/healthz").await;
    }
    // Its first answer is not read to its end: what comes now follows it.
    known
        .write_all(format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut rest = String::new();
    timeout(DEADLINE, known.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert!(rest.ends_with("\r\n\r\nok\n"), "{rest}");
    world.stop.send(true).unwrap();
    timeout(DEADLINE, server).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_form_that_can_not_be_read_says_why() {
    let world = World::new();
    let form = ("content-type", "application/x-www-form-urlencoded");
    let slow = || body::late(Body::new(Unfinished { data: Some(Bytes::from_static(b"secret=")), waits: None }));
    let cookie = world.signed_in().await;
    let (cookie, site) = (("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin"));
    let within = [form, cookie, site];
    let undeclared = [("content-type", "application/json"), cookie, site];
    for (path, headers, body, status, sentence) in [
        ("/sign-in", &within[..1], slow(), 408, "the body comes too slowly"),
        ("/workflows/w/suspend", &within[..], slow(), 408, "the body comes too slowly"),
        ("/sign-in", &undeclared[..1], Body::from("{}"), 415, "the body must be declared as a form"),
        ("/workflows/w/suspend", &undeclared[..], Body::from("{}"), 415, "the body must be declared as a form"),
        ("/sign-in", &within[..1], Body::from(vec![b'a'; MAX_BODY + 1]), 413, "the body is longer than"),
    ] {
        let answer = world.ask("POST", path, headers, body).await;
        assert_eq!(answer.status(), status, "{path}");
        let page = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let page = String::from_utf8_lossy(&page);
        assert!(page.starts_with("<!DOCTYPE html>") && page.contains(sentence), "{path}: {page}");
    }
}

#[tokio::test]
async fn a_head_has_its_bounds() {
    let world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(listener, None, world.router.clone(), world.stop.subscribe()));
    let head =
        |headers: &str| format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n");
    let long = |bytes: usize| head(&format!("X-Long: {}\r\n", "x".repeat(bytes)));
    let bound = serve::HEAD as usize;
    for (request, status) in [
        (long(bound / 2), "200 OK"),
        (long(2 * bound), "431 Request Header Fields Too Large"),
        (head(&"X-Many: x\r\n".repeat(101)), "431 Request Header Fields Too Large"),
        ("nonsense\r\n\r\n".to_owned(), "400 Bad Request"),
    ] {
        let mut client = TcpStream::connect(address).await.unwrap();
        // It may be refused before all of it was sent.
        let _ = client.write_all(request.as_bytes()).await;
        let mut answer = vec![0; 9 + status.len()];
        timeout(DEADLINE, client.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"));
    }
    world.stop.send(true).unwrap();
    timeout(DEADLINE, server).await.unwrap().unwrap().unwrap();
}
