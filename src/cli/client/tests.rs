use std::{fs, net::TcpListener};

use super::*;
use crate::cli::fake::{Fake, Reply, global};

#[test]
fn a_controller_that_is_not_there_is_told_with_a_hint() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = Client::new(&global(&format!("http://127.0.0.1:{port}"))).unwrap().get("/x", &[]).unwrap_err();
    assert_eq!(error.status(), 3, "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("the controller at http://127.0.0.1:{port} can't be reached: connection refused")
    );
    assert!(error.hint().unwrap().contains("--server"));
}

#[test]
fn each_status_has_its_exit_status_and_the_problem_its_words() {
    let table = [
        (400, 2),
        (422, 2),
        (401, 5),
        (403, 5),
        (404, 4),
        (409, 1),
        (410, 1),
        (429, 1),
        (500, 1),
        (502, 1),
        (503, 3),
        (302, 1),
    ];
    for (status, exit) in table {
        let problem =
            json!({"type": "about:blank", "title": "t", "status": status, "detail": "so it is", "hint": "do this"});
        let fake = Fake::start(move |_, _| Reply::Json(status, problem.clone()));
        let error = fake.client().get("/api/v1/runs/x", &[]).unwrap_err();
        assert_eq!(error.status(), exit, "{status}");
        if status != 302 {
            assert!(error.to_string().ends_with("so it is"), "{status}: {error}");
        }
        if !matches!(status, 302 | 401 | 403 | 503) {
            assert_eq!(error.hint().as_deref(), Some("do this"), "{status}");
        }
    }
}

#[test]
fn a_refusal_without_words_is_told_all_the_same() {
    let fake = Fake::start(|request, _| Reply::Json(if request.path() == "/a" { 404 } else { 500 }, Value::Null));
    assert_eq!(fake.client().get("/a", &[]).unwrap_err().to_string(), "there is nothing at /a");
    assert_eq!(
        fake.client().get("/b", &[]).unwrap_err().to_string(),
        "the controller answers 500 Internal Server Error"
    );
}

#[test]
fn an_answer_that_is_no_json_is_told_as_such() {
    let fake = Fake::start(|_, _| Reply::Stream(vec![b"<html>".to_vec()], true));
    let error = fake.client().get("/api/v1/source", &[]).unwrap_err();
    assert_eq!(error.status(), 1);
    assert!(
        error.to_string().starts_with("the controller's answer to GET /api/v1/source is not understood"),
        "{error}"
    );
}

#[test]
fn the_token_and_the_query_are_sent() {
    let fake = Fake::start(|_, _| Reply::Json(200, json!({"items": []})));
    fake.client().page("/api/v1/runs", &[("labels", "a=b&c"), ("limit", "5")]).unwrap();
    let request = &fake.requests()[0];
    assert_eq!(request.target, "/api/v1/runs?labels=a%3Db%26c&limit=5");
    assert_eq!(request.header("authorization"), Some("Bearer s3cret"));
}

#[test]
fn a_list_is_read_page_by_page() {
    let page = |from: usize, to: usize| {
        let items: Vec<_> = (from..to).map(|n| json!({"metadata": {"name": format!("w{n:04}")}})).collect();
        json!({"apiVersion": "xene/v1", "kind": "List", "items": items})
    };
    let fake =
        Fake::start(move |_, before| Reply::Json(200, if before == 0 { page(0, PAGE) } else { page(PAGE, PAGE + 3) }));
    let list = fake.client().list("/api/v1/workflows", &[("phase", "Ready")]).unwrap();
    assert_eq!(list["kind"], "List");
    assert_eq!(list["items"].as_array().unwrap().len(), PAGE + 3);
    let targets: Vec<_> = fake.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(
        targets,
        [
            "/api/v1/workflows?phase=Ready&limit=500".to_owned(),
            "/api/v1/workflows?phase=Ready&limit=500&after=w0499".to_owned(),
        ]
    );
}

#[test]
fn a_broken_stream_goes_on_where_it_was() {
    let fake = Fake::start(|_, before| match before {
        0 => Reply::Stream(vec![b"hello, ".to_vec()], false),
        1 => Reply::Json(410, json!({"detail": "pruned"})),
        _ => Reply::Stream(vec![b"hello".to_vec(), b", world\n".to_vec()], true),
    });
    let mut text = String::new();
    let error = fake.client().resuming("/log", &[], || {}).unwrap().read_to_string(&mut text).unwrap_err();
    assert_eq!((text.as_str(), error.to_string().as_str()), ("hello, ", "pruned"), "a refusal is not tried again");

    let fake = Fake::start(|_, before| match before {
        0 => Reply::Stream(vec![b"hello, ".to_vec()], false),
        1 => Reply::Stream(vec![b"hel".to_vec()], false),
        2 => Reply::Json(503, json!({"detail": "starting"})),
        _ => Reply::Stream(vec![b"hello".to_vec(), b", world\n".to_vec()], true),
    });
    let mut text = String::new();
    fake.client().resuming("/log", &[], || {}).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello, world\n");
}

#[test]
fn what_is_no_url_is_refused_before_anything_is_sent() {
    for server in ["127.0.0.1:7420", "ftp://host", "http://", "", "http://a b"] {
        let error = Client::new(&global(server)).unwrap_err();
        assert_eq!(error.status(), 2, "{server:?}: {error}");
    }
}

#[test]
fn only_this_machine_gets_a_token_that_was_found() {
    assert!(["localhost", "127.0.0.1", "127.8.8.8", "[::1]"].iter().all(|host| is_local(host)));
    assert!(!["xene.example", "10.0.0.1", "localhost.example", "0.0.0.0"].iter().any(|host| is_local(host)));
}

#[test]
fn https_needs_certificates_in_pem_form() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let mut global = global("https://localhost:1");
    global.ca = Some(path.clone());
    assert_eq!(Client::new(&global).unwrap_err().to_string(), format!("{}: no such file or directory", path.display()));
    fs::write(&path, "nothing").unwrap();
    assert!(Client::new(&global).unwrap_err().to_string().ends_with("holds no certificate in PEM form"));
}

#[test]
fn https_is_spoken_with_the_certificates_of_ca() {
    use std::{io::Write, sync::Arc};
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![made.cert.der().clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        // One client that trusts it, one that does not.
        for _ in 0..2 {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, listener.accept().unwrap().0);
            if stream.read(&mut [0; 4096]).is_ok() {
                write!(stream, "HTTP/1.1 200 x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}").unwrap();
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let ask = |pem: String| {
        let mut global = global(&format!("https://localhost:{port}"));
        global.ca = Some(folder.path().join("ca.pem"));
        fs::write(folder.path().join("ca.pem"), pem).unwrap();
        Client::new(&global).unwrap().get("/x", &[])
    };
    assert_eq!(ask(made.cert.pem()).unwrap(), json!({}));
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let error = ask(stranger.cert.pem()).unwrap_err();
    assert_eq!(error.status(), 3, "{error}");
    assert!(error.to_string().ends_with("is not signed by who is trusted under that name"), "{error}");
    server.join().unwrap();
}

#[test]
fn a_certificate_that_is_not_good_is_told_in_words() {
    let certificate = |change: fn(&mut rcgen::CertificateParams)| {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        change(&mut params);
        params
    };
    let table = [
        (
            certificate(|params| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
            "is that of an authority, which no server may show",
            "CA:FALSE",
        ),
        (
            certificate(|params| {
                params.not_before = rcgen::date_time_ymd(2019, 1, 1);
                params.not_after = rcgen::date_time_ymd(2020, 1, 1);
            }),
            "has expired at 2020-01-01",
            "--tls-cert",
        ),
        (certificate(|params| params.not_before = rcgen::date_time_ymd(2999, 1, 1)), "is not valid yet", "clock"),
        (
            certificate(|params| {
                params.subject_alt_names = vec![rcgen::SanType::DnsName("xene.example".try_into().unwrap())];
            }),
            "is for another name: xene.example",
            "--server",
        ),
    ];
    for (params, told, hint) in table {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let error = refused(&made.pem(), made.der().clone(), key);
        assert_eq!(error.status(), 3, "{error}");
        let message = error.to_string();
        assert!(message.starts_with("the certificate of https://localhost:") && message.contains(told), "{message}");
        assert!(error.hint().unwrap().contains(hint), "{:?}", error.hint());
    }
}

/// What a client says that trusts this certificate, of a server that shows it.
fn refused(
    pem: &str,
    certificate: rustls::pki_types::CertificateDer<'static>,
    key: rustls::pki_types::PrivateKeyDer<'static>,
) -> Error {
    use std::sync::Arc;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let connection = rustls::ServerConnection::new(config).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, listener.accept().unwrap().0);
        let _ = stream.read(&mut [0; 4096]);
    });
    let folder = tempfile::tempdir().unwrap();
    let mut global = global(&format!("https://localhost:{port}"));
    global.ca = Some(folder.path().join("ca.pem"));
    fs::write(folder.path().join("ca.pem"), pem).unwrap();
    let error = Client::new(&global).unwrap().get("/x", &[]).unwrap_err();
    server.join().unwrap();
    error
}
