//! Sign-in by OpenID Connect, with a provider on loopback that checks what a provider checks.

use axum::{
    Json,
    extract::{Form, Path, State as AxumState},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use tokio::net::TcpListener;
use xene_agent::clock;
use xene_schemas::access::Role;

use super::*;
use crate::http::openid::{OpenId, Settings};

type Pairs = Vec<(String, String)>;

/// What the provider believes, and what it was asked.
struct Believes {
    issuer: String,
    key: EcdsaKeyPair,
    /// Of the person who signs in.
    claims: StdMutex<Value>,
    /// What only `/userinfo` tells.
    more: StdMutex<Value>,
    /// The challenge and the nonce of each code that was given and not taken yet.
    codes: StdMutex<Vec<(String, String, String)>>,
}

struct Provider(Arc<Believes>);

fn pair<'a>(pairs: &'a Pairs, name: &str) -> &'a str {
    pairs.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}/realm", listener.local_addr().unwrap());
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).unwrap();
        let believes = Arc::new(Believes {
            issuer,
            key,
            claims: StdMutex::new(json!({"sub": "u-17", "email": "ada@example.com", "groups": ["dev"]})),
            more: StdMutex::new(json!({"sub": "u-17"})),
            codes: StdMutex::default(),
        });
        let router = Router::new()
            .route("/realm/.well-known/{name}", get(discovery))
            .route("/realm/keys", get(keys))
            .route("/realm/token", post(token))
            .route("/realm/userinfo", get(userinfo))
            .with_state(Arc::clone(&believes));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self(believes)
    }

    fn settings(&self, secret: Option<PathBuf>) -> Settings {
        Settings {
            issuer: self.0.issuer.clone(),
            client: "xene".to_owned(),
            secret,
            public_url: "http://localhost:7420".to_owned(),
            scopes: vec!["email".to_owned()],
            name_claim: "email".to_owned(),
            groups_claim: "groups".to_owned(),
            roles: vec![("dev".to_owned(), Role::Operator), ("ops".to_owned(), Role::Admin)],
            ca: None,
        }
    }

    fn says(&self, claims: Value) {
        *self.0.claims.lock().unwrap() = claims;
    }

    /// The person signs in there: the address that leads back.
    fn agree(&self, address: &str) -> String {
        let (endpoint, query) = address.split_once('?').unwrap();
        assert_eq!(endpoint, format!("{}/authorize", self.0.issuer));
        let uri: axum::http::Uri = format!("/?{query}").parse().unwrap();
        let asked = axum::extract::Query::<Pairs>::try_from_uri(&uri).unwrap().0;
        assert_eq!(pair(&asked, "client_id"), "xene");
        assert_eq!(pair(&asked, "response_type"), "code");
        assert_eq!(pair(&asked, "scope"), "openid email");
        assert_eq!(pair(&asked, "code_challenge_method"), "S256");
        assert_eq!(pair(&asked, "redirect_uri"), "http://localhost:7420/sign-in/openid/callback");
        let mut codes = self.0.codes.lock().unwrap();
        let code = format!("code {}/&", codes.len());
        codes.push((code.clone(), pair(&asked, "code_challenge").to_owned(), pair(&asked, "nonce").to_owned()));
        let back = [("code", code.as_str()), ("state", pair(&asked, "state")), ("iss", &self.0.issuer)];
        format!("/sign-in/openid/callback?{}", crate::percent::pairs(&back))
    }
}

async fn discovery(AxumState(state): AxumState<Arc<Believes>>, Path(name): Path<String>) -> Json<Value> {
    assert_eq!(name, "openid-configuration");
    let at = |path: &str| format!("{}/{path}", state.issuer);
    Json(json!({
        "issuer": state.issuer, "authorization_endpoint": at("authorize"), "token_endpoint": at("token"),
        "jwks_uri": at("keys"), "userinfo_endpoint": at("userinfo"), "scopes_supported": ["openid"],
    }))
}

async fn keys(AxumState(state): AxumState<Arc<Believes>>) -> Json<Value> {
    let point = state.key.public_key().as_ref();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    Json(json!({"keys": [
        {"kty": "EC", "crv": "P-256", "kid": "k1", "x": part(&point[1..33]), "y": part(&point[33..])},
    ]}))
}

async fn token(
    AxumState(state): AxumState<Arc<Believes>>,
    headers: axum::http::HeaderMap,
    Form(form): Form<Pairs>,
) -> (StatusCode, Json<Value>) {
    let refuse = |error: &str| (StatusCode::BAD_REQUEST, Json(json!({"error": error})));
    // xene:s3 cret/ with each part encoded.
    let is_client = headers.get("authorization").is_some_and(|shown| shown == "Basic eGVuZTpzMyUyMGNyZXQlMkY=")
        || pair(&form, "client_id") == "xene";
    if !is_client {
        return (StatusCode::UNAUTHORIZED, Json(json!({"error": "invalid_client"})));
    }
    let mut codes = state.codes.lock().unwrap();
    let Some(at) = codes.iter().position(|(code, ..)| *code == pair(&form, "code")) else {
        return refuse("invalid_grant");
    };
    let (_, challenge, nonce) = codes.remove(at);
    let shown = digest::digest(&digest::SHA256, pair(&form, "code_verifier").as_bytes());
    let right = pair(&form, "grant_type") == "authorization_code"
        && pair(&form, "redirect_uri") == "http://localhost:7420/sign-in/openid/callback"
        && URL_SAFE_NO_PAD.encode(shown) == challenge;
    if !right {
        return refuse("invalid_grant");
    }
    let mut claims = state.claims.lock().unwrap().clone();
    let defaults = json!({
        "iss": state.issuer, "aud": "xene", "nonce": nonce, "exp": clock::now().wall.as_second() + 60,
    });
    for (name, value) in defaults.as_object().unwrap() {
        claims.as_object_mut().unwrap().entry(name.clone()).or_insert(value.clone());
    }
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&json!({"alg": "ES256", "kid": "k1"})), encode(&claims));
    let signature = state.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    (StatusCode::OK, Json(json!({"token_type": "Bearer", "access_token": "a1", "id_token": token})))
}

async fn userinfo(AxumState(state): AxumState<Arc<Believes>>, headers: axum::http::HeaderMap) -> Json<Value> {
    assert_eq!(headers["authorization"], "Bearer a1");
    Json(state.more.lock().unwrap().clone())
}

/// A controller whose people sign in there.
fn world(provider: &Provider, secret: Option<PathBuf>) -> World {
    let openid = OpenId::new(provider.settings(secret)).unwrap();
    World::configured(|config| config.openid = Some(Arc::new(openid)))
}

fn cookie_of(response: &Response, name: &str) -> Option<String> {
    let all = response.headers().get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap());
    let cookie = all.filter_map(|cookie| cookie.split(';').next()).find(|cookie| cookie.starts_with(name))?;
    Some(cookie.to_owned())
}

impl World {
    /// Off to the provider: where to, and the cookie of the attempt.
    async fn leaves(&self, next: &str) -> (String, String) {
        let response = self.ask("GET", &format!("/sign-in/openid?next={next}"), &[], "").await;
        assert_eq!(response.status(), 303);
        let cookie = cookie_of(&response, "xene-sign-in-7420=").unwrap();
        let whole = response.headers()["set-cookie"].to_str().unwrap();
        assert!(whole.contains("; HttpOnly; SameSite=Lax; Max-Age=600"), "{whole}");
        (response.headers()["location"].to_str().unwrap().to_owned(), cookie)
    }

    /// Back from the provider: the status, the page, the session's cookie.
    async fn returns(&self, address: &str, cookie: &str) -> (u16, String, Option<String>) {
        let headers = [("cookie", cookie), ("sec-fetch-site", "cross-site")];
        let response = self.ask("GET", address, &headers, "").await;
        let (status, session) = (response.status().as_u16(), cookie_of(&response, "xene-session-7420="));
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(bytes.into()).unwrap(), session)
    }

    async fn signs_in(&self, provider: &Provider) -> (u16, String, Option<String>) {
        let (address, cookie) = self.leaves("/runs").await;
        self.returns(&provider.agree(&address), &cookie).await
    }
}

#[tokio::test]
async fn the_provider_says_who_somebody_is_and_their_groups_what_they_may() {
    let provider = Provider::start().await;
    let world = world(&provider, None);
    let page = world.page("/sign-in?next=%2Fruns%3Fphase%3DError", "").await.1;
    assert!(page.contains("href=\"http://localhost:7420/sign-in/openid?next=/runs%3Fphase%3DError\""), "{page}");

    let (address, cookie) = world.leaves("/runs%3Fphase%3DError").await;
    let (status, page, session) = world.returns(&provider.agree(&address), &cookie).await;
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("content=\"0;url=/runs?phase=Error\""), "led on by a page of ours: {page}");
    let session = session.unwrap();
    let (status, page) = world.page("/runs", &session).await;
    assert_eq!(status, 200);
    assert!(page.contains("oidc:ada@example.com"), "{page}");
    assert!(world.audited().contains(r#""actor":"oidc:ada@example.com","role":"operator""#), "{}", world.audited());

    provider.says(json!({"sub": "u-17", "groups": ["dev", "ops"]}));
    let (_, _, session) = world.signs_in(&provider).await;
    let page = world.page("/runs", &session.unwrap()).await.1;
    assert!(page.contains("oidc:u-17"), "who has no address is named by what they are: {page}");
}

#[tokio::test]
async fn a_client_with_a_secret_shows_it() {
    let provider = Provider::start().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "s3 cret/\n").unwrap();
    let world = world(&provider, Some(secret.clone()));
    assert_eq!(world.signs_in(&provider).await.0, 200);
    // It is read anew, as every file with a secret.
    std::fs::write(&secret, "other").unwrap();
    let (status, page, session) = world.signs_in(&provider).await;
    assert_eq!((status, session), (502, None), "{page}");
    assert!(page.contains("could not be asked who you are"), "{page}");
}

#[tokio::test]
async fn who_is_in_no_group_is_told_and_written_down() {
    let provider = Provider::start().await;
    let world = world(&provider, None);
    provider.says(json!({"sub": "u-18", "email": "eve@example.com", "groups": ["guests", 7]}));
    let (status, page, session) = world.signs_in(&provider).await;
    assert_eq!((status, session), (403, None));
    assert!(page.contains("oidc:eve@example.com is in no group that may sign in"), "{page}");
    assert!(world.audited().contains(r#""actor":"oidc:eve@example.com""#), "{}", world.audited());
    // An address that is not verified is anybody's.
    for (verified, name) in [(json!(false), "u-18"), (json!("false"), "u-18"), (json!("true"), "ada@example.com")] {
        let email = json!({"sub": "u-18", "email": "ada@example.com", "email_verified": verified, "groups": "dev"});
        provider.says(email);
        let session = world.signs_in(&provider).await.2.unwrap();
        assert!(world.page("/runs", &session).await.1.contains(&format!("oidc:{name}")), "{verified}");
    }
}

#[tokio::test]
async fn what_the_token_lacks_is_asked_for() {
    let provider = Provider::start().await;
    let world = world(&provider, None);
    provider.says(json!({"sub": "u-17"}));
    *provider.0.more.lock().unwrap() = json!({"sub": "u-17", "email": "ada@example.com", "groups": ["ops"]});
    let session = world.signs_in(&provider).await.2.unwrap();
    assert!(world.page("/runs", &session).await.1.contains("oidc:ada@example.com"));
    *provider.0.more.lock().unwrap() = json!({"sub": "u-1", "groups": ["ops"]});
    assert_eq!(world.signs_in(&provider).await.0, 502, "of somebody else");
}

#[tokio::test]
async fn only_the_browser_that_began_a_sign_in_ends_it() {
    let provider = Provider::start().await;
    let world = world(&provider, None);
    let (address, _) = world.leaves("/").await;
    let (_, other) = world.leaves("/").await;
    let back = provider.agree(&address);
    for cookie in ["", &other, "xene-sign-in-7420=", "xene-sign-in-7420=.", "xene-sign-in-7420=x"] {
        let (status, page, session) = world.returns(&back, cookie).await;
        assert_eq!((status, session), (401, None), "{cookie:?}: {page}");
    }
    assert_eq!(provider.0.codes.lock().unwrap().len(), 1, "its code was not even shown");
    let (address, cookie) = world.leaves("/").await;
    let back = provider.agree(&address);
    let mixed = back.replace("iss=", "iss=x");
    assert_eq!(world.returns(&mixed, &cookie).await.0, 401, "an answer of another provider");
    assert_eq!(world.returns(&back, &cookie).await.0, 200);
    assert_eq!(world.returns(&back, &cookie).await.0, 502, "a code is good once");
}

#[tokio::test]
async fn a_provider_that_refuses_or_lies_signs_nobody_in() {
    let provider = Provider::start().await;
    let world = world(&provider, None);
    let (address, cookie) = world.leaves("/").await;
    let back = provider.agree(&address);
    let state = back.split_once("state=").unwrap().1.split('&').next().unwrap();
    let refused = |error: &str| format!("/sign-in/openid/callback?state={state}&error={error}");
    let (status, page, _) = world.returns(&refused("access_denied"), &cookie).await;
    assert_eq!(status, 401);
    assert!(page.contains("did not sign you in: access_denied"), "{page}");
    let page = world.returns(&refused("call+us+at+555-1234!"), &cookie).await.1;
    assert!(!page.contains("555"), "{page}");
    let past = clock::now().wall.as_second() - 61;
    for lie in [
        json!({"aud": "other"}),
        json!({"iss": "https://elsewhere.example"}),
        json!({"nonce": "n"}),
        json!({"exp": past}),
    ] {
        let mut claims = json!({"sub": "u-17", "groups": ["ops"], "email": "a@b"});
        claims.as_object_mut().unwrap().extend(lie.as_object().unwrap().clone());
        provider.says(claims);
        let (status, _, session) = world.signs_in(&provider).await;
        assert_eq!((status, session), (502, None), "{lie}");
    }
}

#[tokio::test]
async fn where_something_else_speaks_tls_cookies_are_for_that_alone() {
    let sessions = ui::session::Sessions::new(false).found_at(Some("https://xene.example"));
    let world = World::configured(|config| config.sessions = sessions);
    let cookie = async |host: &str| {
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let response = world.ask("POST", "/sign-in", &[kind, ("host", host)], format!("secret={ADMIN}")).await;
        assert_eq!(response.status(), 303, "{host}");
        let hsts = response.headers().contains_key("strict-transport-security");
        (response.headers()["set-cookie"].to_str().unwrap().to_owned(), hsts)
    };
    let (there, hsts) = cookie("xene.example").await;
    assert!(there.starts_with("__Host-xene-session=") && there.ends_with("; Secure") && hsts, "{there}");
    let (here, hsts) = cookie("localhost:7420").await;
    assert!(here.starts_with("xene-session-7420=") && !here.contains("Secure") && !hsts, "{here}");
    // Every answer says so, not only pages.
    for (path, status) in
        [("/healthz", 200), ("/api/v1/runs", 401), ("/metrics", 401), ("/nowhere", 404), ("/ui/x", 404)]
    {
        for (host, wanted) in [("xene.example", true), ("localhost:7420", false)] {
            let response = world.ask("GET", path, &[("host", host)], "").await;
            let hsts = response.headers().contains_key("strict-transport-security");
            assert_eq!((response.status().as_u16(), hsts), (status, wanted), "{path} of {host}");
        }
    }
}

#[tokio::test]
async fn without_a_provider_there_is_no_such_page() {
    let world = World::new();
    for path in ["/sign-in/openid", "/sign-in/openid/callback?code=x"] {
        assert_eq!(world.ask("GET", path, &[], "").await.status(), 404, "{path}");
    }
    assert!(!world.page("/sign-in", "").await.1.contains("openid"));
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_told() {
    let provider = Provider::start().await;
    let gone = Settings { issuer: "http://127.0.0.1:1".to_owned(), ..provider.settings(None) };
    let renamed = Settings { issuer: format!("{}/", provider.0.issuer), ..provider.settings(None) };
    for settings in [gone, renamed] {
        let openid = OpenId::new(settings).unwrap();
        let world = World::configured(|config| config.openid = Some(Arc::new(openid)));
        let (status, page) = world.page("/sign-in/openid", "").await;
        assert_eq!(status, 502);
        assert!(page.contains("could not be asked who you are"), "{page}");
    }
}
