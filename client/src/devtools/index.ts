export { RowcastDevtools, type RowcastDevtoolsProps } from "./devtools.js";
