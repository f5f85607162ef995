//! Peers: one file each, written as their users write them.

mod axum_sse;
mod idle;
mod send_loop;
mod socketio;

use actix::Actor;
use actix::ActorContext;
use actix_web_actors::ws;
use actix_web_actors::ws::ProtocolError;
use actix_web_actors::ws::WebsocketContext;

use crate::load::dialect::Dialect;
use crate::load::wire::Wire;
use crate::ours;
use crate::server::Server;

/// A WebSocket that begins as soon as the handshake is over.
const PLAIN: Dialect = Dialect { wire: Wire::WebSocket, path: "/ws", answers: &[], ready: "" };

pub(crate) const ALL: &[Server] = &[
    Server { name: "bare WebSocket actor", dialect: PLAIN, against: ours::WEBSOCKET, idle: true, run: idle::run },
    Server {
        name: "do_send loop",
        dialect: Dialect { ready: "welcome", ..PLAIN },
        against: ours::WEBSOCKET,
        idle: false,
        run: send_loop::run,
    },
    Server {
        name: "socketioxide",
        dialect: Dialect {
            wire: Wire::WebSocket,
            path: "/socket.io/?EIO=4&transport=websocket",
            // Engine.IO 4: opened, so connect the namespace; ping, so pong.
            answers: &[("0{", "40"), ("2", "3")],
            ready: "42[\"ready\"",
        },
        against: ours::WEBSOCKET,
        idle: false,
        run: socketio::run,
    },
    Server {
        name: "axum SSE",
        dialect: Dialect { wire: Wire::Sse, path: "/sse", answers: &[], ready: "" },
        against: ours::SSE,
        idle: false,
        run: axum_sse::run,
    },
];

/// What each WebSocket actor does with what comes in.
pub(crate) fn answer<A: Actor<Context = WebsocketContext<A>>>(
    message: Result<ws::Message, ProtocolError>,
    ctx: &mut WebsocketContext<A>,
) {
    match message {
        Ok(ws::Message::Ping(bytes)) => ctx.pong(&bytes),
        Ok(ws::Message::Close(_)) | Err(_) => ctx.stop(),
        Ok(_) => {}
    }
}
