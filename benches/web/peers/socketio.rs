//! Socketio: socketioxide on axum, all sockets in one room.

use axum::Router;
use socketioxide::SocketIo;
use socketioxide::extract::SocketRef;

use crate::server::Stage;

pub(crate) fn run(stage: Stage) {
    let (layer, io) = SocketIo::new_layer();
    io.ns("/", async |socket: SocketRef| {
        socket.join(ROOM);
        socket.emit("ready", &()).expect("it is taken");
    });
    let app = Router::new().layer(layer);
    stage.axum(app, async move |said| {
        io.to(ROOM).emit("said", &said).await.expect("every socket takes it");
    });
}

const ROOM: &str = "t";
