//! The authority is replaced: who learns of it in time, and who does not.

use xene_schemas::wire::control::Roots;

use super::*;

over_both!(
    an_agent_follows_to_the_new_authority_in_its_session_and_outlives_the_old_one,
    an_agent_that_was_away_is_told_why,
);

/// The next event that opens a session: that, and which authority signed what was shown.
async fn opened_by(controller: &mut Controller) -> (SessionId, String) {
    loop {
        if let Event::SessionOpened { session, agent, authority, .. } = controller.next().await {
            controller.sessions.send(session, &ControllerMessage::Welcome(welcome(&agent)));
            return (session, authority);
        }
    }
}

async fn an_agent_follows_to_the_new_authority_in_its_session_and_outlives_the_old_one(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let earlier = controller.token();
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(&controller, identity.clone());
    agent.connected().await;
    let (session, first) = opened_by(&mut controller).await;
    assert_eq!(first, controller.pki.ca_fingerprint());
    agent.message().await;
    controller.pki.rotate(now()).unwrap();
    let roots = Roots { roots: controller.pki.roots() };
    controller.sessions.send(session, &ControllerMessage::Roots(roots.clone()));
    // At once, not after two thirds of its life.
    let wanted = loop {
        if let Event::Message { message: AgentMessage::CertificateWanted(wanted), .. } = controller.next().await {
            break wanted;
        }
    };
    let signed = controller.pki.sign(&wanted.csr, &identity.name(), now()).unwrap();
    controller.sessions.send(session, &ControllerMessage::Certificate(Certificate { chain: signed.chain }));
    loop {
        if let ControllerMessage::Certificate(certificate) = agent.message().await {
            identity.install(&certificate.chain).unwrap();
            break;
        }
    }
    let reason = agent.disconnected().await;
    assert!(reason.contains("comes again with a certificate"), "{reason}");
    agent.connected().await;
    let (session, second) = opened_by(&mut controller).await;
    assert_eq!(second, controller.pki.ca_fingerprint());
    assert_ne!(second, first);
    // Tokens from before and from now both let in who is new.
    for (name, token) in [("beta", earlier), ("gamma", controller.token())] {
        controller.enrol(&token, name).await.unwrap();
        controller.certified().await;
    }
    controller.pki.finish_rotation(now()).unwrap();
    controller.sessions.send(session, &ControllerMessage::Roots(Roots { roots: controller.pki.roots() }));
    loop {
        if let ControllerMessage::Roots(roots) = agent.message().await
            && roots.roots == controller.pki.roots()
        {
            break;
        }
    }
    controller.restart().await;
    agent.connected().await;
    assert_eq!(opened_by(&mut controller).await.1, second);
    let kept = Identity::load(&folder.path().join("alpha")).unwrap().unwrap();
    assert_eq!(kept.certified().borrow().roots.len(), 1, "the old one is trusted no more");
    agent.stop().await;
}

async fn an_agent_that_was_away_is_told_why(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let identity = controller.enrolled("alpha").await;
    controller.pki.rotate(now()).unwrap();
    // While both are trusted it gets in as it is, though it knows nothing of the new one.
    let mut agent = Agent::start(&controller, identity.clone());
    agent.connected().await;
    let (session, authority) = opened_by(&mut controller).await;
    assert_ne!(authority, controller.pki.ca_fingerprint());
    controller.sessions.close(session, "test");
    agent.disconnected().await;
    agent.stop().await;
    controller.pki.finish_rotation(now()).unwrap();
    controller.restart().await;
    let mut agent = Agent::start(&controller, identity);
    let reason = agent.disconnected().await;
    assert!(reason.contains("an authority that this one has replaced since"), "{reason}");
    assert!(reason.contains("xene agents token create"), "{reason}");
    agent.stop().await;
    // Twice replaced: what it trusts leads nowhere.
    controller.pki.rotate(now()).unwrap();
    controller.pki.finish_rotation(now()).unwrap();
    controller.restart().await;
    let identity = Identity::load(&folder.path().join("alpha")).unwrap().unwrap();
    let mut agent = Agent::start(&controller, Arc::new(identity));
    let reason = agent.disconnected().await;
    assert!(reason.contains("If its CA was replaced while this agent was away"), "{reason}");
    agent.stop().await;
}
