import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app.js";
import { ignoreStrayDrops } from "./files/use-file-drop.js";
import { registerWorker } from "./worker.js";
import "./styles/base.css";
import "./styles/layout.css";
import "./styles/tasks.css";
import "./styles/notes.css";
import "./styles/account.css";
import "./styles/files.css";

createRoot(document.getElementById("app") as HTMLElement).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
ignoreStrayDrops();
if (import.meta.env.PROD) registerWorker();
