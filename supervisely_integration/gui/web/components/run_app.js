/* Starts another app on a platform; there is none to start where this page is shown. */

export const runApp = {
  props: ["options", "payload", "workspaceId", "moduleId", "groupId", "checkExistingTaskCb",
    "publicApiInstance"],
  template: `
    <el-button disabled plain size="mini" title="On the platform only">
      {{ (options && options.text) || "Open" }}
    </el-button>`,
};
