//! Who gets in, and what those who do not are told.

use xene_schemas::wire::control::Renewed;

use super::*;

over_both!(
    a_token_buys_one_identity_and_only_the_right_secret_does,
    an_agent_enrols_with_no_other_controller_than_its_tokens,
    refused_enrolments_from_one_address_are_bounded,
    an_expired_certificate_is_refused_in_a_sentence,
    a_certificate_of_another_controller_is_refused_by_both_ends,
    a_clock_that_is_behind_gets_a_sentence,
    a_certificate_is_renewed_in_time_by_the_controllers_clock,
    certificates_are_renewed_over_the_session_and_used_in_the_next,
    certificates_are_signed_and_judged_by_the_machines_time_and_not_by_the_hosts_clock,
);

async fn a_token_buys_one_identity_and_only_the_right_secret_does(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let controller = Controller::start(folder.path()).over(by);
    let token = controller.token();
    let wrong = JoinToken { secret: "0".repeat(64), ..token.clone() };
    let error = controller.enrol(&wrong, "alpha").await.unwrap_err().to_string();
    assert!(error.contains("not valid"), "{error}");
    controller.enrol(&token, "alpha").await.unwrap();
    let spent = controller.enrol(&token, "beta").await.unwrap_err().to_string();
    assert_eq!(spent, error, "spent and wrong are answered alike");
    let again = controller.enrol(&controller.token(), "alpha").await.unwrap_err();
    assert!(matches!(again, IdentityError::Exists { .. }), "{again}");
    assert!(Identity::load(&folder.path().join("beta")).unwrap().is_none());
}

#[tokio::test]
async fn an_enrolment_that_breaks_off_goes_on_with_the_same_key_by_itself_and_when_it_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let controller = Controller::start(folder.path());
    let token = controller.token();
    *controller.driver.gone_for.lock().unwrap() = 5;
    let error = controller.enrol(&token, "alpha").await.unwrap_err();
    assert!(matches!(&error, IdentityError::Broken(why) if why.contains("shutting down")), "{error}");
    let identity = controller.enrol(&token, "alpha").await.unwrap();
    let keys = controller.driver.keys.lock().unwrap().clone();
    assert_eq!(keys.len(), 4 + 2, "four times, and once more after one that failed");
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    let certified = identity.certified().borrow().clone();
    let (_, certificate) = x509_parser::parse_x509_certificate(&certified.chain[0]).unwrap();
    assert_eq!(tls::hex(&certificate.public_key().subject_public_key.data), keys[0]);
}

async fn an_agent_enrols_with_no_other_controller_than_its_tokens(by: Transports) {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (controller, other) = (Controller::start(folder.path()).over(by), Controller::start(other.path()).over(by));
    let token = other.token();
    let error = controller.enrol(&token, "alpha").await.unwrap_err().to_string();
    assert!(error.contains("made by another controller"), "{error}");
    assert_eq!(other.driver.tokens.lock().unwrap().len(), 1);
}

async fn refused_enrolments_from_one_address_are_bounded(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let controller = Controller::start(folder.path()).over(by);
    let wrong = JoinToken { secret: "0".repeat(64), ..controller.token() };
    let mut errors = Vec::new();
    for _ in 0..12 {
        errors.push(controller.enrol(&wrong, "alpha").await.unwrap_err().to_string());
    }
    assert!(errors[9].contains("not valid"), "{errors:?}");
    assert!(errors[10].contains("too many refused enrolments"), "{errors:?}");
    assert!(controller.enrol(&controller.token(), "alpha").await.is_err(), "the right token must wait, too");
}

async fn an_expired_certificate_is_refused_in_a_sentence(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let identity = controller.enrolled("alpha").await;
    let csr = identity.certificate_request().unwrap();
    let old = controller.pki.sign(&csr, &identity.name(), now() - 25.hours()).unwrap();
    identity.install(&old.chain).unwrap();
    let mut agent = Agent::start(&controller, identity.clone());
    let reason = agent.disconnected().await;
    let until = identity.certified().borrow().facts.not_after;
    assert!(reason.contains(&format!("refused this agent's certificate: it expired at {until}")), "{reason}");
    assert!(reason.contains("xene agents token create"), "{reason}");
    assert!(controller.events.try_recv().is_err(), "the machine heard of it");
    agent.stop().await;
}

async fn a_certificate_of_another_controller_is_refused_by_both_ends(by: Transports) {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut controller = Controller::start(folder.path()).over(by);
    let mut other = Controller::start(other.path()).over(by);
    let foreign = other.enrolled("alpha").await;
    let mut agent = Agent::start(&controller, foreign.clone());
    let reason = agent.disconnected().await;
    assert!(reason.contains("not the one that this agent enrolled with"), "{reason}");
    agent.stop().await;

    // An agent that does not care whom it speaks to.
    let connection = rogue(&controller, Some((&other.pki, "alpha")), &frame(&hello(1))).await;
    let error = soon(connection.closed()).await.to_string();
    assert!(error.contains("error 48"), "{error}");
    assert!(controller.events.try_recv().is_err(), "the machine heard of it");
}

#[tokio::test]
async fn a_session_without_a_certificate_is_closed_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let connection = rogue(&controller, None, &frame(&hello(1))).await;
    let error = soon(connection.closed()).await.to_string();
    assert!(error.contains("needs a certificate"), "{error}");
    assert!(controller.events.try_recv().is_err(), "the machine heard of it");
}

#[tokio::test]
async fn an_expired_identity_is_enrolled_anew_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let identity = controller.enrolled("alpha").await;
    let csr = identity.certificate_request().unwrap();
    let old = controller.pki.sign(&csr, &identity.name(), now() - 25.hours()).unwrap();
    identity.install(&old.chain).unwrap();
    let fresh = controller.enrol(&controller.token(), "alpha").await.unwrap();
    assert!(fresh.certified().borrow().facts.not_after > now());
    assert_ne!(fresh.certified().borrow().chain, identity.certified().borrow().chain);
}

async fn a_clock_that_is_behind_gets_a_sentence(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    // The controller's clock is days ahead of this machine's.
    let controller = Controller::start_at(folder.path(), now() + 72.hours(), pki::AGENT_LIFE).over(by);
    let error = controller.enrol(&controller.token(), "alpha").await.unwrap_err().to_string();
    assert!(error.contains("check the clocks of both"), "{error}");
}

async fn certificates_are_renewed_over_the_session_and_used_in_the_next(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    // Certificates begin an hour back, so with 30 s to go it is long past two thirds of its life.
    let mut controller = Controller::start_at(folder.path(), now(), Duration::from_secs(30)).over(by);
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(&controller, identity.clone());
    agent.connected().await;
    let session = controller.opened().await;
    agent.message().await;
    let Event::Message { message: AgentMessage::CertificateWanted(wanted), .. } = controller.next().await else {
        panic!()
    };
    let signed = controller.pki.sign(&wanted.csr, &identity.name(), now()).unwrap();
    let chain = signed.chain.clone();
    controller.sessions.send(session, &ControllerMessage::Certificate(Certificate { chain }));
    let ControllerMessage::Certificate(certificate) = agent.message().await else { panic!() };
    let other = controller.pki.sign(&wanted.csr, &"beta".parse().unwrap(), now()).unwrap();
    assert!(identity.install(&other.chain).is_err(), "of another agent");
    identity.install(&certificate.chain).unwrap();
    let kept = Identity::load(&folder.path().join("alpha")).unwrap().unwrap();
    assert_eq!(*kept.certified().borrow(), *identity.certified().borrow());
    controller.sessions.close(session, "test");
    agent.connected().await;
    loop {
        if let Event::SessionOpened { fingerprint, .. } = controller.next().await {
            assert_eq!(fingerprint, signed.fingerprint);
            break;
        }
    }
    agent.stop().await;
}

async fn a_certificate_is_renewed_in_time_by_the_controllers_clock(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(&controller, identity);
    let outgoing = agent.connected().await;
    let session = controller.opened().await;
    agent.message().await;
    let renewed = |hours: i64| {
        let wall = now() + SignedDuration::from_hours(hours);
        ControllerMessage::Renewed(Renewed {
            seq: 1,
            wall,
            claims_version: 0,
            nacks: vec![],
            token: None,
            longest: None,
        })
    };
    // By this host's clock, which is 17 hours behind, there is time.
    for hours in [-17, 0] {
        controller.sessions.send(session, &renewed(hours));
        let ControllerMessage::Renewed(_) = agent.message().await else { panic!() };
        outgoing.send(&renew(1)).unwrap();
        let Event::Message { message: AgentMessage::Renew(_), .. } = controller.next().await else { panic!("{hours}") };
    }
    controller.sessions.send(session, &renewed(17));
    let Event::Message { message: AgentMessage::CertificateWanted(_), .. } = controller.next().await else { panic!() };
    agent.stop().await;
}

async fn certificates_are_signed_and_judged_by_the_machines_time_and_not_by_the_hosts_clock(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    // The host's clock is three days ahead of it.
    let set = |controller: &Controller, hours| {
        *controller.driver.ahead.lock().unwrap() = SignedDuration::from_hours(hours);
    };
    set(&controller, -72);
    let identity = controller.enrolled("alpha").await;
    let facts = identity.certified().borrow().facts.clone();
    let lasts = facts.not_after.duration_since(now());
    assert!((lasts - SignedDuration::from_hours(24 - 72)).abs() < SignedDuration::from_mins(1), "{facts:?}");
    let mut agent = Agent::start(&controller, identity.clone());
    agent.connected().await;
    controller.opened().await;
    agent.stop().await;
    for hours in [-72 - 2, -72 + 25, 0] {
        set(&controller, hours);
        let mut agent = Agent::start(&controller, identity.clone());
        let reason = agent.disconnected().await;
        assert!(reason.contains("refused this agent's certificate"), "{hours}: {reason}");
        agent.stop().await;
    }
}

#[test]
fn names_of_any_shape_survive_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(folder.path(), now(), pki::AGENT_LIFE).unwrap();
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    for name in ["a", "Build_Host-1.example", &"Z".repeat(63)] {
        let name: Name = name.parse().unwrap();
        let signed = pki.sign(&csr, &name, now()).unwrap();
        assert_eq!(tls::facts(&tls::certificates(&signed.chain).unwrap()[0]).unwrap().agent, Some(name));
    }
}
