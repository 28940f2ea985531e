import type { KeySchema, Schema } from "../../src/schema.js";

const text: KeySchema = { type: "text", nullable: true, required: false };

/** Boards, and tasks on them. */
export const schema: Schema = {
  schema: 1,
  tables: {
    boards: {
      idType: "text",
      softDelete: null,
      touch: null,
      hardDelete: true,
      wholeTable: true,
      keys: {
        id: { ...text, nullable: false },
        version: { type: "integer", nullable: false, required: false },
        name: text,
        owner: { ...text, serverOwned: true, default: { user: true } },
        members: { type: "list", elementType: "text", nullable: true, required: false },
      },
    },
    tasks: {
      idType: "text",
      softDelete: "deletedAt",
      touch: "updatedAt",
      hardDelete: false,
      wholeTable: true,
      keys: {
        id: { ...text, nullable: false },
        version: { type: "integer", nullable: false, required: false },
        title: { ...text, maxLength: 40 },
        done: { type: "boolean", nullable: false, required: false, default: { constant: false } },
        boardId: { ...text, topic: true, references: "boards" },
        position: { type: "integer", nullable: true, required: false },
        meta: { type: "json", nullable: true, required: false },
        createdBy: { ...text, serverOwned: true, default: { user: true } },
        deletedAt: { type: "timestamptz", nullable: true, required: false },
        updatedAt: { type: "timestamptz", nullable: true, required: false },
      },
    },
  },
  functions: { finish: { board: { type: "text", required: true } } },
};
