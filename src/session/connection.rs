//! One session: the control stream in both directions, and the log streams beside it.

use std::{sync::Arc, time::Duration};

use quinn::Connection;
use tokio::time::timeout;
use xene_agent::session::{
    Outgoing,
    frames::{FrameReader, WriteEnd},
    transport::{codes, widen},
};
use xene_schemas::{
    phase::Transport,
    wire::{
        MAX_FRAME, VERSION,
        control::{AgentMessage, ControllerMessage, Hello, Refused},
    },
};

use super::{
    Driver, LogSink, files,
    listener::{Shared, ShownCertificate},
    logs,
};
use crate::decide::event::Event;

/// How long an agent may take to say Hello.
const HELLO: Duration = Duration::from_secs(10);

/// How long the last bytes may take to be sent, and then how long the agent may take to close. Together less than the
/// five seconds within which a revoked agent must be cut off.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// The oldest version of the conversation that this code speaks.
const OLDEST: u16 = VERSION;

/// Why a session ended.
enum Ended {
    /// The agent said its last, and all of it reached the machine.
    ByAgent,
    /// The machine ended it, and all that it said is sent.
    Here,
    /// It broke off; a sentence says how.
    Broken(String),
}

/// Serves an agent whose certificate the handshake has checked.
pub(super) async fn serve<D: Driver, L: LogSink>(
    shared: &Arc<Shared<D, L>>,
    connection: Connection,
    transport: Transport,
    shown: ShownCertificate,
) {
    let ShownCertificate { agent, fingerprint, authority } = shown;
    widen(&connection);
    let opening = async {
        let (send, recv) = connection.accept_bi().await.map_err(|error| error.to_string())?;
        let mut reader = FrameReader::new(recv, MAX_FRAME);
        match reader.next::<AgentMessage>().await {
            Ok(Some(AgentMessage::Hello(hello))) => Ok((send, reader, hello)),
            Ok(_) => Err("the first message was not Hello".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    };
    let (mut send, mut reader, hello) = match timeout(HELLO, opening).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            tracing::debug!(%agent, error, "no session");
            return connection.close(codes::PROTOCOL, error.as_bytes());
        }
        Err(_) => return connection.close(codes::PROTOCOL, b"no Hello came"),
    };
    let outgoing = Outgoing::<ControllerMessage>::default();
    if let Some(refused) = refuse_version(&hello) {
        tracing::warn!(%agent, software = hello.software, "{}", refused.message);
        let _ = outgoing.send(&ControllerMessage::Refused(refused));
        outgoing.close("no common version");
        let _ = timeout(CLOSE_PATIENCE, outgoing.write_to(&mut send)).await;
        return finish(&connection, Ended::Here).await;
    }
    let session = shared.next_session();
    // Before the machine hears of it, which answers at once.
    let wanted = shared.sessions.insert(session, outgoing.clone());
    let address = connection.remote_address().ip().to_canonical().to_string();
    tracing::info!(?session, %agent, address, %transport, "session opened");
    let (name, hello) = (agent.clone(), Box::new(hello));
    let opened = Event::SessionOpened { session, agent: name, fingerprint, authority, address, transport, hello };
    if shared.driver.tell(opened).await.is_ok() {
        let reading = async {
            loop {
                match reader.next::<AgentMessage>().await {
                    Ok(Some(message)) => {
                        if shared.driver.tell(Event::Message { session, message }).await.is_err() {
                            return Ended::Here;
                        }
                    }
                    Ok(None) => return Ended::ByAgent,
                    Err(error) => return Ended::Broken(error.to_string()),
                }
            }
        };
        let closing = async {
            outgoing.closing().await;
            tokio::time::sleep(CLOSE_PATIENCE).await;
        };
        let sending = async {
            files::send(&shared.files, &connection, wanted).await;
            // How the connection ended, the others tell.
            std::future::pending::<()>().await;
        };
        let mut writing = Box::pin(outgoing.write_to(&mut send));
        let ended = tokio::select! {
            ended = reading => ended,
            end = &mut writing => {
                match end {
                    WriteEnd::Closed(_) => Ended::Here,
                    end => Ended::Broken(end.to_string()),
                }
            }
            () = closing => Ended::Broken(WriteEnd::Stalled.to_string()),
            () = sending => Ended::Here,
            () = logs::accept(shared, &connection, &agent, &outgoing) => Ended::Broken("the connection ended".into()),
        };
        if matches!(ended, Ended::ByAgent) {
            outgoing.close("the agent ended the session");
            let _ = timeout(CLOSE_PATIENCE, &mut writing).await;
        }
        drop(writing);
        let reason = match &ended {
            Ended::Broken(reason) => Some(reason.clone()),
            Ended::ByAgent | Ended::Here => outgoing.reason(),
        };
        tracing::info!(?session, %agent, reason, "session ended");
        finish(&connection, ended).await;
    }
    outgoing.close("the session has ended");
    shared.sessions.remove(session);
    // A controller that is shutting down hears no more.
    let _ = shared.driver.tell(Event::SessionClosed(session)).await;
}

/// Closes the connection. Whoever received the last bytes closes first: a close overtakes what is still on its way.
async fn finish(connection: &Connection, ended: Ended) {
    match ended {
        Ended::ByAgent => connection.close(codes::DONE, b""),
        Ended::Here => {
            let _ = timeout(CLOSE_PATIENCE, connection.closed()).await;
            connection.close(codes::DONE, b"");
        }
        Ended::Broken(reason) => connection.close(codes::PROTOCOL, reason.as_bytes()),
    }
}

fn refuse_version(hello: &Hello) -> Option<Refused> {
    (hello.version < OLDEST).then(|| Refused {
        reason: "Version".into(),
        message: format!(
            "agent {} speaks version {} of the conversation, and this controller needs {OLDEST} or newer: update the \
             agent",
            hello.software, hello.version
        ),
        retry: false,
    })
}
