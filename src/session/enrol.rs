//! Enrolment: a join token buys a certificate, once. Whoever asks again, because the answer was lost, is answered again
//! for the same key.

use std::{sync::Arc, time::Duration};

use quinn::{Connection, RecvStream, SendStream};
use rcgen::PublicKeyData;
use tokio::time::timeout;
use xene_agent::session::{frames::FrameReader, tls, token::secret_hash, transport::codes};
use xene_schemas::wire::{
    MAX_JOIN_FRAME, Message,
    join::{Join, JoinMessage, JoinRefused, Joined},
};

use super::{Driver, listener::Shared, pki};
use crate::{
    decide::event::{Answer, Command},
    driver::Closed,
};

/// How long a peer that has proved nothing may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the answer may take to arrive.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// Serves a peer without a certificate: one request, one answer.
pub(super) async fn serve<D: Driver, L>(shared: &Arc<Shared<D, L>>, connection: Connection) {
    let address = connection.remote_address().ip().to_canonical();
    if shared.is_refused_often(address) {
        tracing::warn!(%address, "too many refused enrolments from there");
        return connection.close(codes::BUSY, b"too many refused enrolments; try again in a minute");
    }
    let reading = async {
        let (send, recv) = connection.accept_bi().await.ok()?;
        read(send, recv).await
    };
    let Ok(Some((mut send, join))) = timeout(PATIENCE, reading).await else {
        shared.note_refusal(address);
        return connection.close(codes::PROTOCOL, b"expected a Join");
    };
    let name = join.name.clone();
    let answer = match admit(shared, join).await {
        Ok(Ok(joined)) => {
            tracing::info!(%address, agent = %joined.name, "agent enrolled");
            JoinMessage::Joined(joined)
        }
        Ok(Err(message)) => {
            shared.note_refusal(address);
            tracing::warn!(%address, wanted = %name, message, "enrolment refused");
            JoinMessage::JoinRefused(JoinRefused { message })
        }
        // That is no refusal: it asks again.
        Err(closed) => return connection.close(codes::DONE, closed.to_string().as_bytes()),
    };
    let mut frame = Vec::new();
    answer.encode(&mut frame);
    let sending = async {
        if send.write_all(&frame).await.is_ok() && send.finish().is_ok() {
            // The peer closes once it has the answer.
            connection.closed().await;
        }
    };
    let _ = timeout(CLOSE_PATIENCE, sending).await;
    connection.close(codes::DONE, b"");
}

async fn read(send: SendStream, recv: RecvStream) -> Option<(SendStream, Join)> {
    match FrameReader::new(recv, MAX_JOIN_FRAME).next().await {
        Ok(Some(JoinMessage::Join(join))) => Some((send, join)),
        _ => None,
    }
}

/// Spends the token, then signs. A request that can't be signed must not cost a token, so it is checked first. What breaks
/// off between the two is made good when the agent asks again. A sentence says why it is refused.
async fn admit<D: Driver, L>(shared: &Arc<Shared<D, L>>, join: Join) -> Result<Result<Joined, String>, Closed> {
    let key = match pki::public_key(&join.csr) {
        Ok(key) => tls::hex(key.der_bytes()),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let secret_hash = secret_hash(&join.secret);
    let command = Command::Enrol { id: join.id, secret_hash, key, name: join.name, labels: join.labels };
    let name = match shared.driver.ask(command).await? {
        Ok(Answer::Enrolled(name)) => name,
        Ok(_) => return Ok(Err("the controller gave no name".into())),
        Err(refusal) => return Ok(Err(refusal.to_string())),
    };
    let signed = match shared.pki.sign(&join.csr, &name, shared.driver.wall()) {
        Ok(signed) => signed,
        Err(error) => return Ok(Err(error.to_string())),
    };
    // A certificate that no list has opens no session.
    let certify = Command::Certify { agent: name.clone(), fingerprint: signed.fingerprint };
    let kept = shared.driver.ask(certify).await?;
    Ok(kept
        .map(|_| Joined { name, chain: signed.chain, ca: shared.pki.roots() })
        .map_err(|refusal| refusal.to_string()))
}
