// In place of @grafana/plugin-compat, which looks for functions that only some versions of @grafana/runtime have.
import { getDataSourceSrv } from '@grafana/runtime';

export const getDataSourceInstance = (ref: any, scoped?: any) => getDataSourceSrv().get(ref, scoped);
export const getDataSourceInstanceSettings = async (ref: any) => getDataSourceSrv().getInstanceSettings(ref);
export const getDataSourceInstanceList = async (filters: any) => getDataSourceSrv().getList(filters);
export const getDefaultDataSourceInstanceListItem = async () => getDataSourceSrv().getList()[0];
export const useDataSourceInstance = () => ({ loading: true });
export const registerRuntimeDataSourceInstance = () => undefined;
