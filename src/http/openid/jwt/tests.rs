//! Tokens that another implementation signed, one by each algorithm, and what becomes of them when they are changed.

use serde_json::json;

use super::*;

#[derive(Deserialize)]
struct Made {
    keys: Value,
    tokens: std::collections::BTreeMap<String, String>,
}

fn made() -> Made {
    serde_json::from_str(include_str!("tokens.json")).unwrap()
}

fn keys(keys: &Value) -> KeySet {
    serde_json::from_value(json!({"keys": keys})).unwrap()
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[test]
fn tokens_by_every_algorithm_are_verified() {
    let made = made();
    let keys = keys(&made.keys);
    assert_eq!(made.tokens.len(), 10);
    for (algorithm, token) in &made.tokens {
        let claims = verified(token, &keys).unwrap_or_else(|invalid| panic!("{algorithm}: {invalid}"));
        assert_eq!((claims.sub.as_str(), &claims.rest["groups"]), ("u1", &json!(["ops"])), "{algorithm}");
    }
}

#[test]
fn a_token_that_was_changed_proves_nothing() {
    let made = made();
    let all = keys(&made.keys);
    for (algorithm, token) in &made.tokens {
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let other = encode(&json!({"iss": "https://id.example", "sub": "root", "aud": "xene", "exp": 2e9}));
        let result = verified(&format!("{header}.{other}.{signature}"), &all).map(drop);
        assert_eq!(result, Err(Invalid::Signature), "{algorithm}: other claims");
        assert_eq!(verified(&format!("{signed}."), &all).map(drop), Err(Invalid::Signature), "{algorithm}: unsigned");
        let stranger = format!("{}.{}", encode(&json!({"alg": "none"})), signed.split_once('.').unwrap().1);
        for unsigned in [format!("{stranger}."), format!("{stranger}.{signature}")] {
            assert_eq!(verified(&unsigned, &all).map(drop), Err(Invalid::Algorithm("none".into())), "{algorithm}");
        }
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let made = made();
    let token = &made.tokens["RS256"];
    let claims = token.split('.').nth(1).unwrap();
    let forged = format!("{}.{claims}.AAAA", encode(&json!({"alg": "HS256", "kid": "rsa"})));
    assert_eq!(verified(&forged, &keys(&made.keys)).map(drop), Err(Invalid::Algorithm("HS256".into())));
}

#[test]
fn a_key_is_good_for_what_it_says() {
    let mut made = made();
    let token = made.tokens["ES256"].clone();
    let at = made.keys.as_array().unwrap().iter().position(|key| key["kid"] == "p256").unwrap();
    for (field, value) in [("use", "enc"), ("alg", "ES384"), ("crv", "P-384"), ("kty", "RSA"), ("kid", "p257")] {
        let mut changed = made.keys.clone();
        changed[at][field] = json!(value);
        assert_eq!(verified(&token, &keys(&changed)).map(drop), Err(Invalid::NoKey), "{field}");
    }
    // One of another kind, or one that can't be read, is passed over.
    made.keys.as_array_mut().unwrap().insert(0, json!({"kid": "p256"}));
    assert!(verified(&token, &keys(&made.keys)).is_ok());
}

#[test]
fn what_is_no_token_is_told() {
    let keys = keys(&made().keys);
    let crit = format!("{}.e30.AAAA", encode(&json!({"alg": "ES256", "crit": ["exp"]})));
    for text in ["", ".", "..", "a.b.c", "e30.e30.e30", &crit] {
        assert_eq!(verified(text, &keys).map(drop), Err(Invalid::Malformed), "{text:?}");
    }
}

#[test]
fn claims_must_be_for_us_and_now() {
    let base = json!({"iss": "https://id.example", "sub": "u1", "aud": "xene", "exp": 1000, "nonce": "n"});
    let check = |field: &str, value: Value, now: i64| {
        let mut claims = base.clone();
        claims[field] = value;
        let expected = Expected {
            issuer: "https://id.example",
            client: "xene",
            nonce: "n",
            now: Timestamp::from_second(now).unwrap(),
        };
        serde_json::from_value::<Claims>(claims).unwrap().check(expected)
    };
    assert_eq!(check("sub", json!("u2"), 999), Ok(()));
    assert_eq!(check("sub", json!("u2"), 1059), Ok(()));
    assert_eq!(check("sub", json!("u2"), 1060), Err(Invalid::Expired));
    assert_eq!(check("nbf", json!(1000), 940), Ok(()));
    assert_eq!(check("nbf", json!(1000), 939), Err(Invalid::Early));
    assert_eq!(check("aud", json!(["xene"]), 0), Ok(()));
    assert_eq!(check("aud", json!(["xene", "other"]), 0), Err(Invalid::Audience), "who is it made for?");
    assert_eq!(check("aud", json!("other"), 0), Err(Invalid::Audience));
    assert_eq!(check("azp", json!("other"), 0), Err(Invalid::Audience));
    assert_eq!(check("azp", json!("xene"), 0), Ok(()));
    assert_eq!(check("nonce", json!("m"), 0), Err(Invalid::Nonce));
    assert_eq!(check("nonce", Value::Null, 0), Err(Invalid::Nonce));
    assert_eq!(check("iss", json!("https://id.example/"), 0), Err(Invalid::Issuer("https://id.example/".into())));
    // A time that is no number is no claim without a limit.
    let mut claims = base.clone();
    claims["exp"] = json!("1000");
    assert!(serde_json::from_value::<Claims>(claims).is_err());
}
