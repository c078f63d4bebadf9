/* Starts another app of the platform; disabled, since this page has no platform. */

export const runApp = {
  props: ["options", "payload", "workspaceId", "moduleId", "groupId", "checkExistingTaskCb",
    "publicApiInstance"],
  template: `
    <el-button disabled plain size="mini" title="Available on the platform only">
      {{ (options && options.text) || "Open" }}
    </el-button>`,
};
